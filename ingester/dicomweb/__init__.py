"""DICOMweb as PS3.18 has it: outcomes, multipart bodies, Store Instances Responses, QIDO-RS.

Pure: no sockets, no clock, no files. ``transport`` moves what is built and read here.
"""
