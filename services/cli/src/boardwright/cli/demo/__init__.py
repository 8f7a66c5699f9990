"""The main job behind `make run`: from a checkpoint to a device that verified and runs it.

    main.py      what was wished for, the stack it runs on, the last words
    chain.py     the stages, one after the other, through the SDK alone
    subject.py   what travels: the digits network, or the user's own checkpoint
    digits.py    trains the digits network, in a process of its own
    network.py   the network; pushed beside the weights, and imported in the step's process
    device.py    the device agent, in a process and folder of its own
    stages.py    tells which stage runs, and how long each took

Every stage looks first whether its result is there already: a second run has little to do, and says so.
"""
