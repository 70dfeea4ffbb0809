"""What an operation is, and the four things that it does. Nothing in here knows HTTP."""
