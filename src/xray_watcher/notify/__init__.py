"""Telling people: messages by HTTP, by mail, and to a program."""
