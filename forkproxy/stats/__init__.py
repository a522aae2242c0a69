"""Statistics: counted on plain objects in each worker, copied to shared memory by a timer, named when somebody asks."""
