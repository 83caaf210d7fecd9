"""What should this machine boot, and in what shape must the answer be: pure, and every answer says why."""
