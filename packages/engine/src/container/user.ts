/**
 * Who a container's process runs as: `user[:group]` looked up in the image's own `/etc/passwd` and `/etc/group`, by
 * Docker's rules (numbers need no entry; without a group the user's, with its supplementary groups).
 */
import { EngineError } from '../errors.ts';

export interface ResolvedUser {
  readonly uid: number;
  readonly gid: number;
  readonly additionalGids: readonly number[];
  readonly home: string;
}

const ID_MAX = 0x7fffffff;

/** Throws `ERR_ARCBOX_INVALID_ARGUMENT` when a name, or one of `groupAdd`, is in neither file. */
export function resolveUser(
  user: string,
  passwd: string,
  group: string,
  groupAdd: readonly string[] = [],
): ResolvedUser {
  const [userPart = '', groupPart = ''] = user.split(':', 2);
  const wanted = userPart === '' ? '0' : userPart;
  const accounts = entries(passwd).filter((fields) => fields.length >= 6);
  const groups = entries(group).filter((fields) => fields.length >= 3);
  const id = numeric(wanted);
  const account =
    accounts.find((fields) => fields[0] === wanted) ?? accounts.find((fields) => numeric(fields[2]) === id);
  const uid = id ?? numeric(account?.[2]);
  if (uid === undefined) {
    throw new EngineError(
      'ERR_ARCBOX_INVALID_ARGUMENT',
      `unable to find user ${userPart}: no matching entries in the image's /etc/passwd`,
    );
  }
  const home = account?.[5] || '/';
  const added = [...new Set(groupAdd.map((name) => groupId(groups, name)))];
  if (groupPart !== '') {
    return { uid, gid: groupId(groups, groupPart), additionalGids: added, home };
  }
  const name = account?.[0];
  const gid = numeric(account?.[3]) ?? 0;
  const additionalGids = groups
    .filter((fields) => name !== undefined && (fields[3] ?? '').split(',').includes(name))
    .map((fields) => numeric(fields[2]))
    .filter((value): value is number => value !== undefined);
  return { uid, gid, additionalGids: [...new Set([...additionalGids, ...added])], home };
}

function groupId(groups: readonly string[][], name: string): number {
  const gid = numeric(name) ?? numeric(groups.find((fields) => fields[0] === name)?.[2]);
  if (gid !== undefined) return gid;
  throw new EngineError(
    'ERR_ARCBOX_INVALID_ARGUMENT',
    `unable to find group ${name}: no matching entries in the image's /etc/group`,
  );
}

function entries(file: string): string[][] {
  return file
    .split('\n')
    .filter((line) => line !== '' && !line.startsWith('#'))
    .map((line) => line.split(':'));
}

function numeric(text: string | undefined): number | undefined {
  if (text === undefined || !/^\d+$/.test(text)) return undefined;
  const value = Number(text);
  return value <= ID_MAX ? value : undefined;
}
