"""scene_track: experiments in end-to-end video tracking, composed by configuration.

Importing the package imports neither torch nor Lightning; the rooms below do when a job runs.
"""

__version__ = "0.2.0"
