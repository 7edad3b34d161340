"""What is known of disks and object stores: files, locks, digests and free space, and nothing of ours."""
