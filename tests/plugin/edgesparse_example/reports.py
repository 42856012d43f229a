"""A report of a run's variants, and a tracker that appends them to a file."""


def names(results):
    """The variants' names, a line each."""
    return "".join(f"{row.variant}\n" for row in results.rows)


def write(results, settings, folder):
    """Append the run's name to the file that the pipeline names."""
    with open(settings.uri, "a", encoding="utf-8") as file:
        file.write(f"{results.run}\n")
    return settings.uri
