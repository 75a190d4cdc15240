// Before anything is drawn: that there is a script, and the colours that were chosen before.
document.documentElement.classList.add('js');
try {
  const chosen = localStorage.getItem('ocelli-theme');
  if (chosen === 'light' || chosen === 'dark') document.documentElement.dataset.theme = chosen;
} catch { /* a page without storage has the system's colours */ }
