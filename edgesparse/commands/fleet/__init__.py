"""The devices of a run: connected at once, asked what they are, and what is known of them."""
