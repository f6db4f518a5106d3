/*
 * The peer of the boot benchmark: an init that does nothing but say that it runs.
 */
#include <fcntl.h>
#include <sys/reboot.h>
#include <unistd.h>

int main(void)
{
	static const char line[] = "bare init up\n";
	int console = open("/dev/console", O_WRONLY);

	if (console >= 0)
		(void)!write(console, line, sizeof(line) - 1);
	reboot(RB_AUTOBOOT);
	return 1;
}
