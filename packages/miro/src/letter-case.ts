/** Names in files are snake_case, names in TypeScript camelCase. */

/** `guidance_scale` → `guidanceScale`. */
export function camelCase(name: string): string {
  return name.replace(/_([a-z0-9])/g, (_, letter: string) => letter.toUpperCase());
}

/** `guidanceScale` → `guidance_scale`. */
export function snakeCase(name: string): string {
  return name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
}
