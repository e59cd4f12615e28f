"""A picture of a panel."""

__all__ = ["draw"]


def draw(widget, width, height):
    """Lay a module's widget out at this size and grab it; returns a QPixmap."""
    import qt

    widget.parent.resize(width, height)
    widget.parent.show()
    for _ in range(5):  # each pass settles the layouts one level deeper
        qt.QApplication.processEvents()
    return widget.parent.grab()
