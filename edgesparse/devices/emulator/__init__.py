"""Emulated Raspberry Pis: their disk images, and the machines that boot them."""
