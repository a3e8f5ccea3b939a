"""Many pairs with one command: `plan` lists them, `workers` register them, `rows` remember them, `run` conducts."""
