"""The classes of pixels. A file of its own, because compiled code of the simulator is made again
whenever a file that it imports changes.
"""

#: What the labels of pixels index: charge of electrons, positrons and photons, Michel electrons and
#: delta rays among them; charge of muons, pions, kaons and protons. The two classes of MicroBooNE's
#: semantic segmentation (Adams et al., Phys. Rev. D 99 (2019) 092001); PILArNet splits Michel
#: electrons, delta rays and low-energy deposits off the first (Adams et al., arXiv:2006.01993).
PIXEL_CLASSES = ("shower", "track")
#: Label of a pixel whose class is not known, or that noise made: losses leave it out.
IGNORED = 255
