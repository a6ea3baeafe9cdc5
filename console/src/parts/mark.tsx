/** The house: an insula, with its windows and its door. */
export function Mark() {
  return (
    <svg className="mark" viewBox="0 0 32 32" aria-hidden="true">
      <path d="M4 8a4 4 0 0 1 4-4h16a4 4 0 0 1 4 4v20h-9v-3a3 3 0 0 0-6 0v3H4zm6 1v4h4V9zm8 0v4h4V9zm-8 7v4h4v-4zm8 0v4h4v-4z" />
    </svg>
  );
}
