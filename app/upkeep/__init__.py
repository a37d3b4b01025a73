"""What keeps a service small and safe over years: retention, orphaned files, backup and restore."""
