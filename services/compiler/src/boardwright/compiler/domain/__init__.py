"""Recipes as values and what follows from them: pure, without files, servers or clocks."""
