/** Commands about the daemon and the host. */
import { VERSION } from '@arcbox/api/client';
import type { Context } from '../context.ts';
import { print } from '../output.ts';
import { formatSize } from '../size.ts';

const MARKS: Readonly<Record<string, string>> = {
  STATUS_OK: 'ok  ',
  STATUS_WARN: 'warn',
  STATUS_FAIL: 'FAIL',
};

export async function daemonStart(context: Context, options: { foreground?: boolean }): Promise<number> {
  if (options.foreground === true) {
    await import('../daemon-process.ts');
    return Number(process.exitCode ?? 0);
  }
  await context.daemon.start();
  const version = await context.daemon.call('SystemService/Version', {});
  print(`the daemon runs as process ${version.daemonPid} on ${context.layout.socket}`);
  return 0;
}

export async function daemonStop(context: Context): Promise<number> {
  print((await context.daemon.stop()) ? 'the daemon has stopped' : 'no daemon is running');
  return 0;
}

export async function daemonStatus(context: Context): Promise<number> {
  const version = await context.daemon.callIfUp('SystemService/Version', {});
  if (version === undefined) {
    print('stopped');
    // As systemctl: not running.
    return 3;
  }
  print(`running, process ${version.daemonPid}, version ${version.version}, ${context.layout.socket}`);
  return 0;
}

export async function doctor(context: Context, options: { format?: string }): Promise<number> {
  const { checks = [] } = await context.daemon.call('SystemService/Doctor', {});
  for (const check of checks) {
    if (options.format === 'json') {
      print(JSON.stringify(check));
      continue;
    }
    print(`${MARKS[check.status ?? ''] ?? '?   '}  ${check.name}: ${check.detail}`);
    if (check.nextStep !== undefined && check.nextStep !== '') print(`      → ${check.nextStep}`);
  }
  return checks.some((check) => check.status === 'STATUS_FAIL') ? 1 : 0;
}

export async function version(context: Context, options: { format?: string }): Promise<number> {
  const daemon = await context.daemon.callIfUp('SystemService/Version', {});
  if (options.format === 'json') {
    print(
      JSON.stringify({ client: { version: VERSION, nodeVersion: process.version }, daemon: daemon ?? null }),
    );
    return 0;
  }
  print(`arcbox ${VERSION} (Node.js ${process.version})`);
  if (daemon === undefined) print('daemon: not running');
  else print(`daemon: ${daemon.version}, boot assets ${daemon.bootHash} (${daemon.architecture})`);
  return 0;
}

export async function info(context: Context, options: { format?: string }): Promise<number> {
  const answer = await context.daemon.call('SystemService/Info', {});
  if (options.format === 'json') {
    print(JSON.stringify(answer));
    return 0;
  }
  print(`Data directory: ${answer.home}`);
  print(`Containers: ${answer.containers ?? 0} (${answer.containersRunning ?? 0} running)`);
  print(`Images: ${answer.images ?? 0}`);
  print(
    `Machine: ${answer.machineCpus} CPUs, ${formatSize(Number(answer.machineMemoryBytes))}, driver ${answer.driver}`,
  );
  print(
    answer.orphanGraceS === undefined
      ? 'Without a daemon: machines go on for ever'
      : `Without a daemon: machines go on for ${answer.orphanGraceS} s`,
  );
  return 0;
}
