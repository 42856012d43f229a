"""A method, a data format, a model, a layer, a transport, a report and a tracker of a package."""
