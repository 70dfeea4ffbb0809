"""How HTTP says the operations: routes from the table, who may ask, and the ports."""
