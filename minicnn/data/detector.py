"""The numbers of the detector that images are made for, MicroBooNE's (JINST 12 (2017) P02017), each
of them once: the simulator, the readers and the axes of displays take them from here.
"""

#: Edge of the full-resolution image: a row per wire, a column per pair of ticks.
DETECTOR_SIZE = 3600
#: Wires of the induction planes 0 and 1 and of the collection plane 2, in the detector's numbering.
INDUCTION_WIRES, COLLECTION_WIRES = 2400, 3456
WIRES_OF_PLANE = (INDUCTION_WIRES, INDUCTION_WIRES, COLLECTION_WIRES)
#: cm between two wires, and z in cm of the lower edge of the first collection wire's strip.
WIRE_PITCH_CM, FIRST_WIRE_CM = 0.3, 0.1
#: Microseconds from one tick to the next; the tick at which charge from the wires (x = 0) arrives.
TICK_US, TRIGGER_TICK = 0.5, 800
#: cm per microsecond in the simulator: 273 V/cm.
DRIFT_VELOCITY = 0.1098
#: cm of drift per tick in MicroBooNE's own data.
MEASURED_CM_PER_TICK = 0.0548965
