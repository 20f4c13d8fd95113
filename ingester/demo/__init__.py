"""The whole job on a small made archive, with nothing set up.

``archive`` writes it and says what has to become of each file, ``content`` makes the data sets;
``job`` runs the emulator and the pipeline of ``ingester run`` on one loop, so that nothing is left
when it ends; ``lookup`` asks the store again; ``report`` says what happened.
"""
