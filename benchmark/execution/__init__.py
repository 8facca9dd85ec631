"""Who runs which cell when: claims, workers here and elsewhere, progress."""
