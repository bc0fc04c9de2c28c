"""The gradient loop and the selection of hyper-parameters; both see the shots only."""
