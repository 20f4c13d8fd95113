"""The version of this program, where nothing heavy is imported."""

VERSION = "0.1.0"
