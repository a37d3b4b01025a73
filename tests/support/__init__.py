"""What tests of several folders share: processes, services, files, how much is searched. Fixtures are in conftest."""
