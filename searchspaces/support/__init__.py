"""The ground that all packages stand on: errors, files, names, caches, seeds, bound settings."""
