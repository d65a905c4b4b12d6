"""How well `parallax profile` agrees with py-spy, and what it costs."""
