/**
 * Credentials of whoever calls us, for a registry: the daemon may have been started by somebody with another
 * configuration. Where there are none it looks for its own; of those that cannot be read the caller is told.
 */
import type { PullImageRequestJson } from '@arcbox/api/client';
import { complain } from './output.ts';

export async function ownCredentials(image: string): Promise<Pick<PullImageRequestJson, 'credentials'>> {
  const [{ credentialsFor }, { parseReference }] = await Promise.all([
    import('@arcbox/image/credentials'),
    import('@arcbox/image/reference'),
  ]);
  let domain: string;
  try {
    domain = parseReference(image).domain;
  } catch {
    // Refused by the daemon, in its words.
    return {};
  }
  try {
    const credentials = await credentialsFor(domain);
    return credentials === undefined ? {} : { credentials };
  } catch (error) {
    complain(`${error instanceof Error ? error.message : String(error)}; going on without it`);
    return {};
  }
}
