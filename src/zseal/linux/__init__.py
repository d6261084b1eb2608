"""Facts about Linux on s390x: kernel files, boot code, kernel parameters, the bounce-buffer pool."""
