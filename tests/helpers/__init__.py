"""What tests of several folders share: checks for leaks, tables of cases, fixtures' ingredients."""
