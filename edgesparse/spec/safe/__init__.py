"""What comes from outside does no harm, and what we write is whole or not there."""
