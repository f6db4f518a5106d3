/**
 * Credentials of whoever calls us, for a registry: the daemon may have been started by somebody with another
 * configuration. Where there are none, or they cannot be read, it looks for its own, and says what is wrong with them
 * once a registry asks.
 */
import type { PullImageRequestJson } from '@arcbox/api/client';

export async function ownCredentials(image: string): Promise<Pick<PullImageRequestJson, 'credentials'>> {
  const [{ credentialsFor }, { parseReference }] = await Promise.all([
    import('@arcbox/image/credentials'),
    import('@arcbox/image/reference'),
  ]);
  try {
    const credentials = await credentialsFor(parseReference(image).domain);
    return credentials === undefined ? {} : { credentials };
  } catch {
    return {};
  }
}
