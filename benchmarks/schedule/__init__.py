"""How close the scheduler comes to a perfect schedule, simulated."""
