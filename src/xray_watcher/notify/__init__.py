"""Notifies people and programs of what happens: channels, texts and the sender."""
