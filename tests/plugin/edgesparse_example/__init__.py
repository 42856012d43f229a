"""A method, a data format, a model, a report and a tracker, as a package of its own has them."""
