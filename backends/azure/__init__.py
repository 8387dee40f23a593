"""Azure: virtual machines of one subscription, in a resource group of the project's own."""
