"""Several processes: a manager, and the event workers that it starts, watches and replaces.

``_plan``       Plan: what a process knows of an app that it does not import
``_checking``   has a fresh interpreter load and check the app, for a reload
``_forking``    has a forked child do it, at the start
``_python``     how a fresh interpreter is called
``__main__``    what runs in a fresh interpreter

This package imports nothing by itself.
"""
