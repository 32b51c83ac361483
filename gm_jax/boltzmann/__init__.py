"""Boltzmann machines and their partition functions."""
