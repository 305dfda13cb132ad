"""Looking at questionable images: queues from the tables of other commands, and a local page to decide on."""
