"""Can this host measure the device? One line for each check, and what to mend."""
