"""Complete commands, options and the names of this project in bash, zsh and fish."""
