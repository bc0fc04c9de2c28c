from clip_adapter.fitting import fit_task
from clip_adapter.methods import make_method


def learn(name, task, options=None):
    """The classifier of a method."""
    return fit_task(make_method(name, options), task, {})
