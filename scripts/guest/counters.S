/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A multiboot kernel that counts in its memory and detects a lost count.
 *
 * Each pass adds one to two words of each page and writes a "." to the serial port. If a word is not
 * the number of the previous pass, the content of its page is lost or old. The kernel then writes an
 * "X" and stops.
 */
	.code32
	.set FIRST, 0x200000		/* above the kernel */
	.set END, 0x3e00000		/* below the BIOS's memory at the end of 64 MiB */
	.set LAST_WORD, 0xffc
	.set SERIAL, 0x3f8

	.text
	.long 0x1badb002, 0, -0x1badb002

	.globl _start
_start:
	cli
	movl $FIRST, %edi
clear:
	movl $0, (%edi)
	movl $0, LAST_WORD(%edi)
	addl $0x1000, %edi
	cmpl $END, %edi
	jb clear
	xorl %ebp, %ebp			/* the number of passes */
pass:
	movl $FIRST, %edi
	leal 1(%ebp), %eax
page:
	cmpl %ebp, (%edi)
	jne lost
	cmpl %ebp, LAST_WORD(%edi)
	jne lost
	movl %eax, (%edi)
	movl %eax, LAST_WORD(%edi)
	addl $0x1000, %edi
	cmpl $END, %edi
	jb page
	incl %ebp
	movw $SERIAL, %dx
	movb $'.', %al
	outb %al, %dx
	jmp pass
lost:
	movw $SERIAL, %dx
	movb $'X', %al
	outb %al, %dx
stop:
	hlt
	jmp stop
