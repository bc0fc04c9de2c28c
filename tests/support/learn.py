from clip_adapter.fitting import fit_task
from clip_adapter.methods import Method, make_method


def learn(method, task, options=None):
    """The classifier of a method, by its name and options or ready-made."""
    ready = isinstance(method, Method)
    return fit_task(method if ready else make_method(method, options), task, {})
