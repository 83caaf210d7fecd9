"""What every test gets: properties are judged by their answers, not by how busy the machine is meanwhile."""

from hypothesis import settings

settings.register_profile("bootwire", deadline=None)
settings.load_profile("bootwire")
