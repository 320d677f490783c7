"""The command line: `main` reads it, and every command is a module of its own with its flags, examples and function."""
