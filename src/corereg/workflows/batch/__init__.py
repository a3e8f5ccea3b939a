"""Many pairs with one command: `plan` lists them, workers do the `tasks`, `rows` remember them, `run` conducts."""
