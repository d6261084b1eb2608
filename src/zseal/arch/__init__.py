"""z/Architecture facts: PSW, address translation, facilities, instruction fields, EBCDIC."""
