"""What the log of the group decides: commands, the machine, and the tables that it changes."""
