"""The wire: replayable bodies, one POST at a time through aiohttp, and what to do about answers.

``body`` writes, ``sender`` sends and says what came back as a value, ``retry`` decides (pure),
``trial`` keeps one wrong setting from costing an archive, ``hold`` slows everybody down.
"""
